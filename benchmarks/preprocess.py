"""Rows of a file to token ids, as a script does it: `python preprocess.py SCRIPT FILE FOLDER_OF_A_TOKENIZER`.

Prints JSON: the seconds, and by how many MB the peak of memory rose.
"""

import json
import resource
import runpy
import sys
import time
from functools import partial
from types import SimpleNamespace

import datasets  # noqa: F401  (to load it belongs to the start-up)
from transformers import AutoTokenizer

from triptych import data

script, file, folder = sys.argv[1:]
names = runpy.run_path(script)  # only defines what it has
tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer(["The first call takes longer than others."])
data_args = names["SummarizationArguments"](
    train_file=file, max_source_length=512, max_target_length=32, overwrite_cache=True
)
args = SimpleNamespace(do_train=True, do_eval=False, do_predict=False)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


before, began = peak(), time.perf_counter()
raw, columns = data.load(data_args, args)
prepare = partial(names["preprocess"], columns=columns, tokenizer=tokenizer, data_args=data_args)
features = data.features(raw, prepare, columns, data_args)
data.lengths(features["train"])
print(json.dumps([time.perf_counter() - began, peak() - before]))
