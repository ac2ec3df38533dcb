"""One thread for torch: micro networks lose more to the thread pool than they gain, above all on shared machines."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
