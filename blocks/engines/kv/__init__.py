"""The parts of the etcd engine."""
