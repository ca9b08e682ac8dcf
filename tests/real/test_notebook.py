"""A notebook in a real kernel, for `make test-real`: it does what its script does, and leaves the kernel able
to be interrupted."""

import json
import os
import subprocess

import pytest
from harness import ROOT, SECONDS_PER_RUN, flags, interpreter, run_script, script_environment

JUPYTER = ROOT / "build/jupyter"  # see the Makefile
EXECUTE = """
import json, sys
import nbclient, nbformat
path, folder, words = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
notebook = nbformat.read(path, 4)
nbformat.validate(notebook)
(parameters,) = [cell for cell in notebook.cells if cell.metadata.get("tags") == ["parameters"]]
parameters.source = f"import sys; sys.argv = {words!r}"
handlers = "import signal; print([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])"
for place in (0, len(notebook.cells) + 1):
    notebook.cells.insert(place, nbformat.v4.new_code_cell(handlers))
where = {"metadata": {"path": folder}}
nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where).execute()
before, after = (notebook.cells[place].outputs[0].text for place in (0, -1))
print(json.dumps([before, after]))
"""


@pytest.mark.first_task
@pytest.mark.timeout(1200)
def test_notebook_in_a_kernel_gives_the_losses_of_its_script(form, start, files, tmp_path):
    assert (JUPYTER / "nbclient").is_dir(), "`make build/jupyter` installs what runs notebooks"
    data = {"train_file": files["train_file"], "validation_file": files["validation_file"]}
    words = flags(model_name_or_path=start(form), do_train=True, do_eval=True, max_steps=3, **data)
    script = run_script(form, *words, folder=tmp_path, output="script")
    variables = script_environment()
    variables["PYTHONPATH"] += f"{os.pathsep}{JUPYTER}"
    made = subprocess.run(
        [interpreter("tools"), ROOT / "tools/notebook.py", tmp_path / "made", form.script],
        capture_output=True,
        text=True,
        check=True,
    )
    command = [interpreter(form.framework), "-c", EXECUTE, made.stdout.strip(), tmp_path]
    command += [json.dumps([form.script.name, *map(str, words), "--output_dir", "notebook"])]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=SECONDS_PER_RUN)
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert before == after
    expected, found = (
        json.loads((folder / "all_results.json").read_text())
        for folder in (script.output, tmp_path / "notebook")
    )
    for name in ("train_loss", "eval_loss"):
        assert found[name] == expected[name]
