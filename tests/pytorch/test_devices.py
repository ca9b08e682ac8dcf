"""Two processes: sums, gathered lists, and parameters that are sharded, gathered and put back."""

import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from harness import SECONDS_PER_RUN, script_environment

from triptych.errors import InputError
from triptych.pytorch import devices

PROCESS = """
import json, sys
from types import SimpleNamespace
import torch, transformers
from triptych.pytorch import devices, optimization, saving

args = SimpleNamespace(fsdp=sys.argv[1] == "fsdp", use_cpu=True, bf16=False, fp16=False, torch_compile=False)
world, accelerator = devices.start(args)
number = world.process
found = {"place": [number, world.processes, world.share, world.shares, world.devices]}
found["sum"] = world.sum([3 + number, torch.tensor(0.5), 2**40])
found["gathered"] = world.gather([number, None, "a" * number, [0.5]])

torch.manual_seed(0)
sizes = dict(num_layers=2, num_decoder_layers=1, num_heads=2, dropout_rate=0.0, decoder_start_token_id=0)
config = transformers.T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=12, **sizes)
model = transformers.T5ForConditionalGeneration(config)
before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
wrapped, plain = devices.wrap(model, accelerator, world)
optimizer = accelerator.prepare(torch.optim.AdamW(plain.parameters(), lr=0.01))
ids = torch.arange(12).reshape(4, 3)[2 * number : 2 * number + 2] % 11
loss = wrapped(input_ids=ids, labels=ids).loss
accelerator.backward(loss)
norm = accelerator.clip_grad_norm_(wrapped.parameters(), 1e9)
found["step"] = [devices.whole(norm).item(), world.sum([loss.detach() / world.processes])[0]]
optimizer.step()
local = next(plain.parameters())
found["own_rows"] = (local.to_local() if world.sharded else local).shape[0]
with devices.gathered(plain), torch.no_grad():
    if number == 0:  # the other makes no forward pass
        found["logits"] = plain(input_ids=ids, decoder_input_ids=ids).logits.sum().item()
weights, moments = saving.gather_weights(plain), saving.gather_optimizer(plain, optimizer)
found["shapes"] = all(weights[name].shape == tensor.shape for name, tensor in before.items())
found["weight"] = weights["shared.weight"].abs().sum().item()
found["moment"] = moments["exp_avg.shared.weight"].abs().sum().item()
own = plain.state_dict(keep_vars=True)
with torch.no_grad():
    for name, tensor in before.items():
        own[name].copy_(devices.part_of(tensor, own[name]))
found["put_back"] = all(torch.equal(saving.gather_weights(plain)[name], before[name]) for name in before)
print(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def two_processes(kind):
    """What each of two processes finds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=script_environment() | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=SECONDS_PER_RUN) for process in started]
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in ended]


@pytest.fixture(scope="module")
def found():
    return {kind: two_processes(kind) for kind in ("ddp", "fsdp")}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_processes_add_up_numbers_and_join_lists(found, kind):
    for number, one in enumerate(found[kind]):
        assert one["place"] == [number, 2, number, 2, 2]
        assert one["sum"] == [7, 1.0, 2**41]
        assert one["gathered"] == [0, None, "", [0.5], 1, None, "a", [0.5]]


def test_sharded_parameters_take_the_step_of_whole_ones(found):
    whole, sharded = found["ddp"], found["fsdp"]
    assert [one["own_rows"] for one in whole] == [11, 11]
    assert [one["own_rows"] for one in sharded] == [6, 5]
    for one, other in zip(whole, sharded, strict=True):
        assert one["shapes"]
        assert other["shapes"]
        for key in ("step", "weight", "moment"):
            assert other[key] == pytest.approx(one[key], rel=1e-4), key
    assert sharded[0]["logits"] == pytest.approx(whole[0]["logits"], rel=1e-4)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_whole_tensors_are_put_back_into_shards(found, kind):
    assert [one["put_back"] for one in found[kind]] == [True, True]


def test_one_process_computes_without_the_others():
    world = devices.World(torch.device("cpu"), 0, 1)
    assert world.sum([torch.tensor(2.5), 3]) == [2.5, 3]
    assert world.gather(["a", None]) == ["a", None]
    assert world.description == "cpu"


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(InputError, match="--fp16: a CPU does not compute in float16"):
        devices.require_precision(SimpleNamespace(fp16=True), torch.device("cpu"))
    devices.require_precision(SimpleNamespace(fp16=True), torch.device("cuda"))
