"""What the project promises, measured: latency and compile time beside Torch-Pruning, and accuracy on CIFAR-10."""
