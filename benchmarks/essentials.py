"""Only what no run can do without: the tensor library, the tokenizer, the model from its checkpoint.

    python essentials.py pytorch|tensorflow|flax FOLDER

Start-up is measured against this.
"""

import sys
from pathlib import Path

from marks import note
from transformers import AutoConfig, AutoTokenizer

framework, folder = sys.argv[1], Path(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
config = AutoConfig.from_pretrained(folder)

if framework == "pytorch":
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(folder)
elif framework == "tensorflow":
    from triptych.tensorflow import conversion

    model = conversion.load(folder, config)
else:
    from triptych.flax import conversion

    model = conversion.load(folder, config)

note("first batch")
