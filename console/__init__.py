"""What people run and look at. Imports the public face; nobody imports it."""
