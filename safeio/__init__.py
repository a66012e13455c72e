"""Reading and writing files safely: the ground that clip and dassl stand on; it imports neither."""
