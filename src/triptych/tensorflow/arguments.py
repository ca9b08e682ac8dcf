"""The flags of the loop in TensorFlow; imports no tensorflow, so that -h is answered at once."""

from dataclasses import dataclass

from triptych import arguments
from triptych.arguments import flag

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")


@dataclass
class TrainingArguments(arguments.TrainingArguments):
    """Devices"""

    tpu: str | None = flag(
        None, 'name or address of a TPU; "local" on the machine that it belongs to', free=True
    )

    def problems(self) -> list[str]:
        found = super().problems()
        if self.optim not in OPTIMIZERS:
            known = f"{', '.join(OPTIMIZERS)} (AdamW is the same for both)"
            found.append(f"--optim {self.optim}: this form knows {known}.")
        if self.torch_compile:
            found.append("--torch_compile: this form's steps are compiled by tf.function.")
        return found
