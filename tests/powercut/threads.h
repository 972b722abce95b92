/* tests/powercut/threads.h - the other threads of this process, found without malloc. */
#ifndef TESTS_POWERCUT_THREADS_H
#define TESTS_POWERCUT_THREADS_H

/* Sends a signal to every other thread; returns how many there are. */
unsigned threads_signal(int number);

#endif
