"""Compiler-based cost estimates for accelerators, and dry runs on this machine."""
