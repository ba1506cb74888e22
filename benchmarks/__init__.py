"""How near Headgate is to what the machine can do at all: ratios against a floor, measured in one run."""
