"""What a framework's interpreter has: `python probe.py pytorch|flax PACKAGE ...`.

Prints JSON: which of the packages are not installed, the versions of the others, and the card that the
framework sees: its name, and the bytes of its memory. Without one it is the processor that is described.
"""

import json
import os
import platform
import sys
from importlib import metadata

framework, *packages = sys.argv[1:]
versions, missing = {"python": platform.python_version()}, []
for package in packages:
    try:
        versions[package] = metadata.version(package)
    except metadata.PackageNotFoundError:
        missing.append(package)

card, memory, reason = None, None, f"{framework} is not installed"
if framework == "pytorch" and "torch" in versions:
    import torch

    reason = f"torch {torch.__version__} sees none"
    if torch.cuda.is_available():
        card, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
elif framework == "flax" and "jax" in versions:
    import jax

    try:
        device = jax.devices()[0]
    except RuntimeError as error:  # of a plugin that does not go with the driver
        reason = " ".join(str(error).split())[:200]
    else:
        reason = f"jax {jax.__version__} sees none, only {device.platform}"
        if device.platform != "cpu":
            card, memory = device.device_kind, (device.memory_stats() or {}).get("bytes_limit")

processor = {
    "name": platform.processor() or platform.machine(),
    "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
}
found = {"versions": versions, "missing": missing, "processor": processor}
print(json.dumps(found | {"card": card and {"name": card, "memory": memory}, "reason": reason}))
