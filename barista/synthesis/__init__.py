"""From a design to its C++ configuration, its C-simulation and the folder that builds it for a card."""
