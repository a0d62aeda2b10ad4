"""Front ends that start a command of `sgloc` in several processes, here or on a cluster; no logic of their own."""
