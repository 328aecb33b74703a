"""Put models to the test on documents they have not seen, and say what it comes to."""
