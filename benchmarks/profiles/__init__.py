"""Where the time of a network's step goes, on this CPU and by the program for an accelerator."""
