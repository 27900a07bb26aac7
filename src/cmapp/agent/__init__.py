"""The resource agents of Pacemaker: ocf:cmapp:application and ocf:cmapp:vm."""
