"""How it is measured: fresh processes, rotated rounds, a server that is never the bottleneck."""
