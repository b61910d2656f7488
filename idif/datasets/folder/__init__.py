"""Import of image folders, e.g. in the layout of MVTec AD."""
