"""What a step costs: the framework's way beside the plain one, measured in the same run."""
