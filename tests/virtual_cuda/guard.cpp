// The interfaces that PyTorch requires of a CUDA build before it places a tensor on a CUDA device, implemented by a
// device that does nothing: one stream, no events, no memory. Its only state is the number of devices and the current
// device.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>

namespace {

std::atomic<int> number_of_devices{1};
// Each thread has its own current device, as in CUDA.
thread_local c10::DeviceIndex current = 0;

c10::DeviceIndex exchange(c10::DeviceIndex index) {
  const c10::DeviceIndex before = current;
  current = index;
  return before;
}

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device getDevice() const override { return {c10::kCUDA, current}; }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Device exchangeDevice(c10::Device device) const override { return {c10::kCUDA, exchange(device.index())}; }
  c10::DeviceIndex deviceCount() const noexcept override { return static_cast<c10::DeviceIndex>(number_of_devices); }

  c10::Stream getStream(c10::Device device) const noexcept override { return only(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return only(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return only(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return only(stream.device()); }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}

  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}

 private:
  static c10::Stream only(c10::Device device) { return c10::Stream(c10::Stream::DEFAULT, device); }
};

Guard guard;

}  // namespace

namespace at {

class VirtualHooks final : public CUDAHooksInterface {
 public:
  explicit VirtualHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return number_of_devices; }
  DeviceIndex deviceCount() const override { return static_cast<DeviceIndex>(number_of_devices); }
  DeviceIndex current_device() const override { return current; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex index) const override { current = index; }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return exchange(index); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return exchange(index); }
  void deviceSynchronize(DeviceIndex) const override {}
};

C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, VirtualHooks)

}  // namespace at

extern "C" {

// Returns whether PyTorch now uses this device; it does not if it has already looked for a CUDA device.
int virtual_cuda_install(int devices) {
  number_of_devices = devices;
  c10::impl::device_guard_impl_registry[static_cast<size_t>(c10::kCUDA)].store(&guard);
  return at::detail::getCUDAHooks().hasCUDA();
}

void virtual_cuda_set_device(int index) { current = static_cast<c10::DeviceIndex>(index); }
int virtual_cuda_get_device() { return current; }
}
