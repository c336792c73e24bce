import Glibc

/// Lets one thread sleep for microseconds, or until another thread wakes it.
// Sendable: the flag is behind the mutex.
final class Doze: @unchecked Sendable {
    private var mutex = pthread_mutex_t()
    private var condition = pthread_cond_t()
    private var isAwaited = false

    init() {
        pthread_mutex_init(&mutex, nil)
        // A clock that nobody sets back or forth.
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(&condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(&condition)
        pthread_mutex_destroy(&mutex)
    }

    /// Ends the sleep under way, or the next one.
    func wake() {
        pthread_mutex_lock(&mutex)
        isAwaited = true
        pthread_cond_signal(&condition)
        pthread_mutex_unlock(&mutex)
    }

    /// Sleeps for `time`, without end for `nil`, unless somebody has woken or wakes it.
    func sleep(for time: Duration?) {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        defer { isAwaited = false }
        if let time {
            var until = timespec()
            clock_gettime(CLOCK_MONOTONIC, &until)
            let nanoseconds = until.tv_nsec + time.microseconds * 1000
            until.tv_sec += nanoseconds / 1_000_000_000
            until.tv_nsec = nanoseconds % 1_000_000_000
            while !isAwaited, pthread_cond_timedwait(&condition, &mutex, &until) == 0 {}
        } else {
            while !isAwaited { pthread_cond_wait(&condition, &mutex) }
        }
    }
}
