from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.export.quantize import WORKER
from tuneloop.export.quantize_worker import GROUP_SIZES, fitting_group_size


@pytest.mark.parametrize(
    ("widths", "wanted", "group_size"),
    [([576, 1536], 128, 64), ([4096, 11008], 128, 128), ([4096], 64, 64), ([96], 128, 32)],
)
def test_a_group_divides_every_layers_width(widths: list[int], wanted: int, group_size: int) -> None:
    assert fitting_group_size(widths, wanted) == group_size


def test_a_width_that_no_group_divides_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="a layer is 100 wide"):
        fitting_group_size([128, 100], 128)


@given(st.lists(st.integers(1, 100).map(lambda n: 32 * n), min_size=1), st.sampled_from(GROUP_SIZES))
def test_the_chosen_group_is_the_largest_that_fits(widths: list[int], wanted: int) -> None:
    chosen = fitting_group_size(widths, wanted)
    assert chosen <= wanted and not any(width % chosen for width in widths)
    larger = [size for size in GROUP_SIZES if chosen < size <= wanted]
    assert all(any(width % size for width in widths) for size in larger)


def test_the_script_runs_without_tuneloop_and_tells_its_failure_in_one_line(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"seed": 1}))
    script = f"import sys; sys.modules['tuneloop'] = None; sys.argv = ['w', {str(request)!r}]; "
    script += f"import runpy; runpy.run_path({str(WORKER)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    (line,) = done.stdout.splitlines()
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert json.loads(line) == {
        "event": "error", "kind": "ModuleNotFoundError", "message": "No module named 'llmcompressor'",
    }  # fmt: skip
