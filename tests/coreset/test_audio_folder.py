from audiodd_jax.coreset import audio_folder


def test_class_folders_have_unique_short_names():
    names = ("rock pop", "rock/pop", "Rock Pop", "x" * 400, "../x", ".hidden", "/")
    folders = audio_folder.folders_of(names)
    assert len({folder.lower() for folder in folders}) == len(names)
    assert all(0 < len(folder.encode()) < 120 for folder in folders)
    assert not any("/" in folder or folder.startswith(".") for folder in folders)
