add_subdirectory(fuzz)
add_subdirectory(powercut)
