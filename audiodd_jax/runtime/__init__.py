"""What knows nothing of audio or distillation: run directories, checkpoints."""
