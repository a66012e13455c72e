"""Read and write files safely. clip and dassl build on this package; it imports neither."""
