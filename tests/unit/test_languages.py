"""Tokenizers of several languages and of two vocabularies: which tokens stand where, and what is refused."""

import warnings
from types import SimpleNamespace

import pytest
import transformers
import translators

from triptych.errors import InputError
from triptych.models import agreement, languages, tokenizers


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m2m100")
    translators.m2m100_tokenizer(folder / "files").save_pretrained(folder / "saved")
    return load(folder / "saved")


def load(folder):
    names = ("cache_dir", "model_revision", "trust_remote_code", "tokenizer_name")
    return tokenizers.load(SimpleNamespace(model_name_or_path=str(folder), **dict.fromkeys(names)))


def use(tokenizer, source, target, *first):
    return languages.use(tokenizer, {"--source_lang": source, "--target_lang": target}, *first)


def mbart(cls):
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -3.0)]
    return cls(vocab=vocabulary)


def refusals(*arguments):
    with pytest.raises(InputError) as caught:
        use(*arguments)
    return caught.value.problems


def flags(**given):
    names = ("source_lang", "target_lang", "source_lang_column", "target_lang_column", "forced_bos_token")
    return SimpleNamespace(**dict.fromkeys(names) | given)


def test_language_of_m2m100_is_not_the_piece_that_is_spelt_like_it(m2m100):
    asked = use(m2m100, "en", "fr")
    french = m2m100.get_lang_id("fr")
    assert m2m100.convert_tokens_to_ids("fr") not in (french, m2m100.unk_token_id)
    assert asked == {"forced_bos_token_id": french}
    assert m2m100("a")["input_ids"][0] == m2m100.get_lang_id("en")
    assert m2m100(text_target="a")["input_ids"][0] == french


def test_language_of_m2m100_is_no_part_of_an_answer_and_has_a_row_in_a_new_table(m2m100, tmp_path):
    use(m2m100, "en", "fr")
    answer = m2m100(text_target="bad cab")["input_ids"]
    assert m2m100.batch_decode([answer], skip_special_tokens=True) == ["bad cab"]
    assert max(m2m100.get_vocab().values()) == max(m2m100.lang_token_to_id.values())
    tokenizers.save(m2m100, tmp_path)
    again = load(tmp_path)
    assert again.get_vocab() == m2m100.get_vocab()
    assert again.convert_tokens_to_ids("__fr__") == m2m100.get_lang_id("fr")


@pytest.mark.parametrize("tokenizer", [translators.nllb_tokenizer(), mbart(transformers.MBart50Tokenizer)])
def test_source_and_target_begin_with_the_language_of_each(tokenizer):
    source, target = languages.known(tokenizer)[3:5]
    asked = use(tokenizer, source, target)
    first, other = tokenizer.convert_tokens_to_ids([source, target])
    assert tokenizer("a")["input_ids"][0] == first
    assert tokenizer(text_target="a")["input_ids"][0] == other
    assert asked == {"forced_bos_token_id": other}


@pytest.mark.parametrize(
    "tokenizer", [translators.nllb_tokenizer(legacy_behaviour=True), mbart(transformers.MBartTokenizer)]
)
def test_where_the_language_ends_a_text_the_decoder_begins_with_it(tokenizer):
    """NLLB's tokens in the order of its first release, and mBART's of 2020."""
    source, target = languages.known(tokenizer)[3:5]
    asked = use(tokenizer, source, target)
    last, other = tokenizer.convert_tokens_to_ids([source, target])
    assert tokenizer("a")["input_ids"][-2:] == [tokenizer.eos_token_id, last]
    assert tokenizer(text_target="a")["input_ids"][-2:] == [tokenizer.eos_token_id, other]
    assert asked == {"decoder_start_token_id": other}
    assert "--forced_bos_token" in refusals(tokenizer, source, target, source)[0]


def test_first_token_can_be_another_than_the_language():
    tokenizer = translators.nllb_tokenizer()
    asked = use(tokenizer, "eng_Latn", "fra_Latn", "deu_Latn")
    assert asked == {"forced_bos_token_id": tokenizer.convert_tokens_to_ids("deu_Latn")}
    (problem,) = refusals(tokenizer, "eng_Latn", "fra_Latn", "xyz_Latn")
    assert "--forced_bos_token xyz_Latn" in problem


def test_language_of_the_wrong_kind_is_refused_with_those_that_are_like_it(m2m100):
    """`en` is a piece of NLLB's vocabulary, and would stand for the language without a word."""
    nllb = translators.nllb_tokenizer()
    assert nllb.convert_tokens_to_ids("en") != nllb.unk_token_id
    source, target = refusals(nllb, "en", "fr_FR")
    assert source.startswith("--source_lang en: ")
    assert "eng_Latn" in source
    assert target.startswith("--target_lang fr_FR: ")
    assert "fra_Latn" in target
    source, target = refusals(m2m100, "eng_Latn", "__fr__")
    assert "en" in source.partition("near it: ")[2].rstrip(".").split(", ")
    assert "fr" in target.partition("near it: ")[2].rstrip(".").split(", ")
    (problem,) = refusals(mbart(transformers.MBart50Tokenizer), "ro_RO", "english")
    assert "near it: en_XX." in problem
    (problem,) = refusals(nllb, "eng_Latn", "???")
    assert "they are called like ace_Arab." in problem


def test_languages_that_are_missing_or_that_nobody_knows_are_told():
    source, target = refusals(translators.nllb_tokenizer(), None, None)
    assert "give --source_lang" in source
    assert "give --target_lang" in target
    (problem,) = refusals(translators.pegasus_tokenizer(), "en", None)
    assert "knows no languages" in problem


def test_flags_of_two_languages_name_columns_where_the_tokenizer_knows_none():
    tokenizer = translators.pegasus_tokenizer()
    given = flags(source_lang="en", target_lang="de")
    assert languages.use_flags(tokenizer, given) == {}
    given.target_lang = "en"
    with pytest.raises(InputError, match="both en"):
        languages.use_flags(tokenizer, given)
    with pytest.raises(InputError, match="--lang en: this tokenizer knows no languages"):
        languages.use_flags(tokenizer, SimpleNamespace(lang="en", forced_bos_token=None))


def test_a_language_that_each_row_has_for_itself_is_not_asked_of_the_flags(m2m100):
    given = flags(source_lang_column="from", target_lang="fr")
    assert languages.use_flags(m2m100, given) == {"forced_bos_token_id": m2m100.get_lang_id("fr")}
    with pytest.raises(InputError, match="give --target_lang"):
        languages.use_flags(m2m100, flags(source_lang_column="from"))
    use(m2m100, "en", "fr")
    for given in (
        flags(source_lang="en", target_lang_column="to"),
        flags(source_lang_column="from", target_lang_column="to"),
    ):
        assert languages.use_flags(m2m100, given) == {}
        assert (m2m100.src_lang, m2m100.tgt_lang) == ("en", "fr")
    with pytest.raises(InputError, match="--source_lang xx: not one of"):
        languages.use_flags(m2m100, flags(source_lang="xx", target_lang_column="to"))


def test_rows_with_target_languages_of_their_own_say_how_they_begin(m2m100):
    by_row = flags(source_lang="en", target_lang_column="to")
    french, german = map(m2m100.get_lang_id, ("fr", "de"))
    for code, token in (("fr", french), ("de", german)):
        with languages.both(m2m100, "en", code, by_row) as begins:
            assert begins == {"forced_bos_token_id": token}
    with languages.both(m2m100, "en", "fr", flags(source_lang="en", target_lang="fr")) as begins:
        assert begins == {}
    by_row.forced_bos_token = "__de__"
    with languages.both(m2m100, "en", "fr", by_row) as begins:
        assert begins == {"forced_bos_token_id": german}
    elder = mbart(transformers.MBartTokenizer)
    with pytest.raises(InputError, match="--forced_bos_token de_DE: this tokenizer ends texts"):
        enter(elder, "en_XX", "fr_XX", flags(target_lang_column="to", forced_bos_token="de_DE"))
    assert (elder.src_lang, elder.tgt_lang) == ("en_XX", None)
    with languages.both(elder, "en_XX", "fr_XX", flags(target_lang_column="to")) as begins:
        assert begins == {"decoder_start_token_id": elder.convert_tokens_to_ids("fr_XX")}
    assert (elder.src_lang, elder.tgt_lang) == ("en_XX", None)


def enter(*arguments):
    with languages.both(*arguments):
        pass


def test_languages_of_rows_that_the_tokenizer_lacks_are_told_with_their_columns(m2m100):
    with pytest.raises(InputError) as caught:
        enter(m2m100, "fr_XX", "xx", flags(source_lang_column="from", target_lang_column="to"))
    source, target = caught.value.problems
    assert source.startswith("--source_lang_column from holds fr_XX: not one of the tokenizer's")
    assert target.startswith("--target_lang_column to holds xx: not one of the tokenizer's")


def test_rows_in_other_languages_leave_the_tokenizer_as_it_was(m2m100):
    use(m2m100, "en", "fr")
    with languages.both(m2m100, "fr", "en", flags()):
        inside = m2m100("a")["input_ids"][0]
    assert inside == m2m100.get_lang_id("fr")
    assert (m2m100.src_lang, m2m100.tgt_lang) == ("en", "fr")
    assert m2m100("a")["input_ids"][0] == m2m100.get_lang_id("en")
    assert m2m100(text_target="a")["input_ids"][0] == m2m100.get_lang_id("fr")
    plain = translators.pegasus_tokenizer()
    with languages.both(plain, "fr", "en", flags()):
        assert not languages.is_multilingual(plain)


def test_flag_of_one_language_is_for_both_sides():
    tokenizer = translators.nllb_tokenizer()
    languages.use_flags(tokenizer, SimpleNamespace(lang="fra_Latn", forced_bos_token=None))
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("fra_Latn", "fra_Latn")


def test_targets_are_read_with_the_targets_vocabulary_before_and_after_saving(tmp_path):
    """In pieces of the source they would be others, and mostly single letters."""
    made = translators.marian_tokenizer(tmp_path / "files")
    text = "der alte hund"
    source, target = made(text)["input_ids"], made(text_target=text)["input_ids"]
    assert source != target
    assert len(target) < len(source)
    tokenizers.save(made, tmp_path / "saved")
    for path in (tmp_path / "files").iterdir():
        path.unlink()
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"source.spm", "target.spm", "vocab.json", "tokenizer_config.json"}
    with warnings.catch_warnings(action="error"):
        again = load(tmp_path / "saved")
    assert again(text)["input_ids"] == source
    assert again(text_target=text)["input_ids"] == target
    assert again(text)["input_ids"] == source, "it goes on reading with the target's"
    padded = [*target, again.pad_token_id, again.pad_token_id]
    assert again.batch_decode([padded], skip_special_tokens=True) == [text]


@pytest.mark.parametrize(
    ("model_type", "start", "end"),
    [
        ("marian", "pad_token_id", "eos_token_id"),
        ("pegasus", "pad_token_id", "eos_token_id"),
        ("m2m_100", "eos_token_id", None),
        ("bart", "eos_token_id", "eos_token_id"),
    ],
)
def test_new_model_begins_and_ends_as_its_architecture_does_with_the_tokenizers_tokens(
    model_type, start, end
):
    """Marian's own configuration begins with token 58100, which no other vocabulary has."""
    config = transformers.AutoConfig.for_model(model_type)
    tokenizer = SimpleNamespace(pad_token_id=7, eos_token_id=8, bos_token_id=None)
    agreement.take_over(config, tokenizer)
    assert config.decoder_start_token_id == getattr(tokenizer, start)
    assert getattr(config, "forced_eos_token_id", None) == (end and tokenizer.eos_token_id)


def test_marian_answers_with_no_padding():
    config = transformers.MarianConfig(vocab_size=9, pad_token_id=8, decoder_start_token_id=8)
    generation = transformers.GenerationConfig(decoder_start_token_id=8, eos_token_id=0)
    agreement.settle_generation(generation, config)
    assert generation.bad_words_ids == [[8]]
    generation.bad_words_ids = [[8], [5]]
    agreement.settle_generation(generation, config)
    assert generation.bad_words_ids == [[8], [5]]
