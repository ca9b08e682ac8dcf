"""The flags of the explicit loop in PyTorch; imports no torch, so that -h is answered at once."""

from dataclasses import dataclass

from triptych import arguments
from triptych.arguments import flag

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd")


@dataclass
class TrainingArguments(arguments.TrainingArguments):
    """Devices"""

    fsdp: bool = flag(False, "split parameters and optimizer state over the devices", free=True)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.optim not in OPTIMIZERS:
            found.append(
                f"--optim {self.optim}: this form knows {', '.join(OPTIMIZERS)}; the Trainer form knows more."
            )
        if self.fsdp and self.fp16:
            found.append("--fsdp and --fp16: the scale of the loss would differ by process; give --bf16.")
        return found
