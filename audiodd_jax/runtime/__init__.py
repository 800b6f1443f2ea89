"""Run directories, loops, devices and files; independent of audio and distillation."""
