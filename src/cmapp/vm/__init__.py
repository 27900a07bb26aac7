"""The guest itself as a service: started, watched, stopped, by libvirt or by commands."""
