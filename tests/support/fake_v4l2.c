/* A V4L2 camera that is not there, below the library that reads it.

   Preloaded into a process, it answers open, ioctl and mmap on the file FAKE_V4L2 as the kernel's driver of a
   thermal camera would: Y16 and YUYV, 64x48 and 32x24, 30 and 9 frames a second, exposure and gain. Pixel
   (x, y) of frame n is 20000 + 100 n + x. FAKE_V4L2_STALL and FAKE_V4L2_UNPLUG are the number of frames after
   which no more come, or the device is gone; after FAKE_V4L2_DROP, three are left out; after FAKE_V4L2_PAUSE,
   none comes for 2.5 s, as behind a shutter. Frames are stamped 20 ms before they can be read. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 8
#define LATE_NS 20000000LL

static int device = -1;
static struct v4l2_pix_format format = {.width = 64, .height = 48, .pixelformat = V4L2_PIX_FMT_YUYV};
static uint64_t ticks; /* that were not taken yet: a reader that is late loses nothing */
static int64_t due;    /* when the next frame can be read */
static unsigned fps = 30, frames, waiting, queued[BUFFERS];
static int exposure_mode = V4L2_EXPOSURE_APERTURE_PRIORITY, exposure = 100, gain = 10;
static void *memory[BUFFERS];

static long limit(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : -1;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void run_after(int64_t first_ns) {
    due = now() + first_ns;
    ticks = 0;
    struct itimerspec period = {{0, 1000000000L / fps}, {first_ns / 1000000000LL, first_ns % 1000000000LL}};
    timerfd_settime(device, 0, &period, NULL);
}

static void run(int on) {
    struct itimerspec stopped = {{0, 0}, {0, 0}};
    ticks = 0;
    if (on)
        run_after(1000000000L / fps);
    else
        timerfd_settime(device, 0, &stopped, NULL);
}

static int is_ours(const char *path) {
    const char *name = getenv("FAKE_V4L2");
    char behind[PATH_MAX];
    if (!name || !path)
        return 0;
    if (strstr(path, "/by-id/") && realpath(path, behind)) /* a link, as udev makes them */
        path = behind;
    return strcmp(path, name) == 0;
}

static int open_device(void) {
    frames = waiting = 0;
    return device = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        va_list list;                                                               \
        va_start(list, flags);                                                      \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;     \
        va_end(list);                                                               \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);              \
        return is_ours(path) ? open_device() : real(path, flags, mode);             \
    }
OPEN(open)
OPEN(open64)

#define MMAP(name)                                                                          \
    void *name(void *at, size_t size, int protection, int flags, int fd, off_t offset) {   \
        void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, #name);     \
        if (fd < 0 || fd != device)                                                        \
            return real(at, size, protection, flags, fd, offset);                          \
        void *place = real(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); \
        return memory[offset / 0x1000000] = place;                                         \
    }
MMAP(mmap)
MMAP(mmap64)

static int fail(int error) {
    errno = error;
    return -1;
}

static void settle(struct v4l2_pix_format *asked) {
    int small = asked->width <= 32;
    if (asked->pixelformat == V4L2_PIX_FMT_Y16 || asked->pixelformat == V4L2_PIX_FMT_YUYV)
        format.pixelformat = asked->pixelformat;
    format.width = small ? 32 : 64;
    format.height = small ? 24 : 48;
    format.bytesperline = 2 * format.width;
    format.sizeimage = format.bytesperline * format.height;
    format.field = V4L2_FIELD_NONE;
    *asked = format;
}

static int dequeue(struct v4l2_buffer *buffer) {
    long stall = limit("FAKE_V4L2_STALL"), unplug = limit("FAKE_V4L2_UNPLUG");
    long drop = limit("FAKE_V4L2_DROP"), pause = limit("FAKE_V4L2_PAUSE");
    if (unplug >= 0 && frames >= unplug)
        return fail(ENODEV);
    if (!waiting || (!ticks && read(device, &ticks, sizeof ticks) < 0))
        return fail(EAGAIN);
    ticks--;
    unsigned index = queued[0];
    memmove(queued, queued + 1, --waiting * sizeof *queued);
    for (unsigned i = 0; i < format.width * format.height; i++)
        ((uint16_t *)memory[index])[i] = 20000 + 100 * frames + i % format.width;
    int64_t stamp = due - LATE_NS;
    due += 1000000000LL / fps;
    buffer->index = index;
    buffer->bytesused = buffer->length = format.sizeimage;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->sequence = frames++;
    buffer->timestamp = (struct timeval){stamp / 1000000000LL, stamp % 1000000000LL / 1000};
    if (stall >= 0 && frames >= stall)
        run(0);
    if (frames == drop) {
        int64_t wait = due + 3 * 1000000000LL / fps - now();
        run_after(wait > 0 ? wait : 1);
    }
    if (frames == pause)
        run_after(2500000000LL);
    return 0;
}

static int *control(unsigned id) {
    return id == V4L2_CID_EXPOSURE_AUTO ? &exposure_mode
         : id == V4L2_CID_EXPOSURE_ABSOLUTE ? &exposure
         : id == V4L2_CID_GAIN ? &gain : NULL;
}

static int answer(unsigned long request, void *argument) {
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *capability = argument;
        strcpy((char *)capability->driver, "fake");
        capability->capabilities = capability->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    }
    case VIDIOC_G_FMT:
        settle(&format);
        ((struct v4l2_format *)argument)->fmt.pix = format;
        return 0;
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT:
        settle(&((struct v4l2_format *)argument)->fmt.pix);
        return 0;
    case VIDIOC_S_PARM:
    case VIDIOC_G_PARM: {
        struct v4l2_fract *period = &((struct v4l2_streamparm *)argument)->parm.capture.timeperframe;
        if (request == VIDIOC_S_PARM && period->numerator)
            fps = period->denominator / period->numerator <= 9 ? 9 : 30;
        *period = (struct v4l2_fract){1, fps};
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wanted = argument;
        wanted->count = wanted->count > BUFFERS ? BUFFERS : wanted->count;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = argument;
        buffer->length = format.sizeimage;
        buffer->m.offset = buffer->index * 0x1000000;
        return 0;
    }
    case VIDIOC_QBUF:
        queued[waiting++ % BUFFERS] = ((struct v4l2_buffer *)argument)->index;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(argument);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
        run(request == VIDIOC_STREAMON);
        return 0;
    case VIDIOC_QUERYCTRL: {
        struct v4l2_queryctrl *query = argument;
        query->minimum = 0;
        query->maximum = 5000;
        return control(query->id) ? 0 : fail(EINVAL);
    }
    case VIDIOC_G_CTRL:
    case VIDIOC_S_CTRL: {
        struct v4l2_control *wanted = argument;
        int *value = control(wanted->id);
        if (!value)
            return fail(EINVAL);
        if (request == VIDIOC_S_CTRL) /* gains end at 50, as drivers clamp silently */
            *value = value == &gain && wanted->value > 50 ? 50 : wanted->value;
        wanted->value = *value;
        return 0;
    }
    default:
        return fail(ENOTTY);
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    return fd >= 0 && fd == device ? answer((uint32_t)request, argument) : real(fd, request, argument);
}
