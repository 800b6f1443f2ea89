import pytest

from audiodd_jax.runtime import memory


@pytest.mark.parametrize("version", [1, 2])
def test_the_lowest_limit_of_nested_control_groups_applies(tmp_path, version):
    root = tmp_path / "cgroup"
    folder = root / "memory" / "job" / "step" if version == 1 else root / "job" / "step"
    folder.mkdir(parents=True)
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    (folder.parent / name).write_text("5000\n")
    (folder / name).write_text("max\n" if version == 2 else "7000\n")
    own = tmp_path / "own"
    own.write_text(f"{'4:memory' if version == 1 else '0:'}:/job/step\n")
    assert min(memory._cgroup_limits(root, own)) == 5000
