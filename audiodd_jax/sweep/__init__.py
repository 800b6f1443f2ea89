"""Many runs, planned by a file, each in a directory of its own."""
