"""The lab's AWS: moto in one process, with ECS tasks that live, run a real machine each, and can go wrong."""
