from audiodd_jax.commands import common


def test_the_compilation_cache_is_keyed_by_instruction_sets(tmp_path):
    texts = {
        "one": "processor : 0\ncpu MHz : 2400\nflags : fpu avx2\n",
        "faster": "processor : 0\ncpu MHz : 3900\nflags : fpu avx2\n",
        "newer": "processor : 0\ncpu MHz : 2400\nflags : fpu avx2 avx512f\n",
        "arm": "processor : 0\nFeatures : fp asimd\nSerial : 1\n",
        "other arm": "processor : 0\nFeatures : fp asimd\nSerial : 2\n",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        found[name] = common._processor(tmp_path / name)
    assert found["one"] == found["faster"] != found["newer"]
    assert found["arm"] == found["other arm"] != found["one"]
