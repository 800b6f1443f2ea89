"""Run directories, loops, devices and files: knows neither audio nor distillation."""
