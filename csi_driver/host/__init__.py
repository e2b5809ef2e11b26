"""The machine: one fact or effect a file. `run` is the door to programs, `syscalls` the door to the kernel."""
