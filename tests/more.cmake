add_subdirectory(fuzz)
