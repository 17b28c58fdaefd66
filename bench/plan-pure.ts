/** Times the pure plan of a folder of manifests inside one process; prints the median seconds. */
