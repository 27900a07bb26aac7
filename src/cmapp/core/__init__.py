"""The pure core: no clock, no socket, no process, no file. Time enters as `now`, in seconds."""
