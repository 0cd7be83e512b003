"""What travels: batches, the spaces of perturbations, losses per row, seeds, hashes and errors."""
