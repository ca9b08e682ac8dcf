"""The flags of the loop in JAX; imports no jax, so that -h and wrong input are answered at once."""

from dataclasses import dataclass

from triptych import arguments
from triptych.arguments import flag

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")


@dataclass
class TrainingArguments(arguments.TrainingArguments):
    """Devices"""

    fsdp: bool = flag(False, "split parameters and optimizer state over the devices", free=True)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.optim not in OPTIMIZERS:
            found.append(
                f"--optim {self.optim}: this form knows {', '.join(OPTIMIZERS)} (AdamW is the same for both)."
            )
        if self.fp16:
            found.append("--fp16: float16 needs loss scaling, which this form does not have; give --bf16.")
        if self.torch_compile:
            found.append("--torch_compile: this form is always compiled, by XLA.")
        return found
