add_subdirectory(fuzz)
add_subdirectory(powercut)
add_subdirectory(e2e)
add_subdirectory(bench)
