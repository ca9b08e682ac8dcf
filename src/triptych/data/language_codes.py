"""Codes of languages as tokenizers and files write them: de, deu, de_DE, de-AT, deu_Latn."""

import re
from collections.abc import Iterable

# By code of three letters (ISO 639-3, with those of a language's standard form that NLLB uses) that of two
_PAIRS = """
    afr af als sq amh am ara ar arb ar asm as aze az azj az bak ba bel be ben bn bod bo bos bs bul bg cat ca
    ces cs cmn zh cym cy dan da deu de dzo dz ell el eng en epo eo est et eus eu ewe ee fao fo fas fa fij fj
    fin fi fra fr gaz om gla gd gle ga glg gl grn gn guj gu hat ht hau ha heb he hin hi hrv hr hun hu hye hy
    ibo ig ind id isl is ita it jav jv jpn ja kan kn kas ks kat ka kaz kk khk mn khm km kin rw kir ky kmr ku
    kor ko kur ku lao lo lat la lav lv lim li lin ln lit lt ltz lb lug lg lvs lv mal ml mar mr mkd mk mlg mg
    mlt mt mon mn mri mi msa ms mya my nep ne nld nl nno nn nob nb nor no npi ne nya ny oci oc ori or orm om
    ory or pan pa pbt ps pes fa plt mg pol pl por pt pus ps que qu quy qu ron ro run rn rus ru sag sg san sa
    sin si slk sk slv sl smo sm sna sn snd sd som so sot st spa es sqi sq srp sr ssw ss sun su swa sw swe sv
    swh sw tam ta tat tt tel te tgk tg tgl tl tha th tir ti tsn tn tso ts tuk tk tur tr twi tw uig ug ukr uk
    urd ur uzb uz uzn uz vie vi wol wo xho xh ydd yi yid yi yor yo zho zh zsm ms zul zu
"""
TWO_LETTERS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))


def language(code: str) -> str:
    """The language of a code without its country or script, by two letters where it has such a code: "de" of
    "deu_Latn"."""
    first = re.split("[-_]", code.strip().strip("_").lower())[0]
    return TWO_LETTERS.get(first, first)


def find(code: str, names: Iterable[str]) -> list[str]:
    """The names that stand for a language: the one that is its code, else those that are it in another case
    or with another sign between the parts, else all of the same language."""
    names = list(names)

    def plain(name: str) -> str:
        return name.strip().lower().replace("-", "_")

    exact = [name for name in names if name == code] or [name for name in names if plain(name) == plain(code)]
    return exact or [name for name in names if language(name) == language(code)]


def spellings(code: str) -> tuple[str, ...]:
    """How a column of texts in a language may be called, in small letters, likely names first."""
    own, two = code.strip().lower(), language(code)
    codes = dict.fromkeys([own, two, *(three for three, short in TWO_LETTERS.items() if short == two)])
    return (*codes, *(f"sentence_{name}" for name in codes))
