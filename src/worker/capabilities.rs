//! [`find`]: what this program computes with on this machine. No model is loaded.

use genius::kind::Computes;
use genius::processor;
use genius::protocol::{CAPABILITIES_FORMAT, Capabilities, Device, DeviceKind, Processor, VERSION};

/// Looks at the processor, the devices and the libraries.
pub fn find() -> Capabilities {
    let cuda = if tch::Cuda::is_available() {
        tch::Cuda::device_count().max(0)
    } else {
        0
    };
    let metal = tch::utils::has_mps();
    let mut libtorch = vec!["cpu"];
    let mut mistralrs = vec!["cpu"];
    let driver = cuda_devices();
    if cuda > 0 {
        libtorch.push("cuda");
    }
    if cfg!(feature = "cuda") && (cuda > 0 || !driver.is_empty()) {
        mistralrs.push("cuda");
    }
    if metal {
        libtorch.push("metal");
    }
    if cfg!(feature = "metal") {
        mistralrs.push("metal");
    }
    let mut devices = Vec::new();
    if libtorch.contains(&"cuda") || mistralrs.contains(&"cuda") {
        let unnamed = usize::try_from(cuda).unwrap_or_default();
        devices = driver;
        while devices.len() < unnamed {
            devices.push(unknown(DeviceKind::Cuda));
        }
    }
    if metal || cfg!(feature = "metal") {
        devices.push(unknown(DeviceKind::Metal));
    }
    Capabilities {
        format: CAPABILITIES_FORMAT,
        version: VERSION.to_owned(),
        processor: Processor {
            level: processor::level().to_owned(),
            fast_bf16: processor::fast_bf16(),
            cores: processor::cores(),
            memory_bytes: processor::memory_bytes(),
        },
        devices,
        engines: Computes::of_build(&libtorch, &mistralrs),
    }
}

fn unknown(kind: DeviceKind) -> Device {
    Device {
        kind,
        name: None,
        memory_bytes: None,
    }
}

/// The devices that NVIDIA's driver lets this process see, with names and memory; none
/// where there is no driver. The driver itself is asked: libtorch reports only how many
/// there are, and mistral.rs may be built for CUDA where libtorch is not.
fn cuda_devices() -> Vec<Device> {
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    // SAFETY: the name ends with a nul; the library stays loaded.
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return Vec::new();
    }
    let find = |name: &CStr| -> *mut c_void {
        // SAFETY: the library is open, and the name ends with a nul.
        unsafe { libc::dlsym(library, name.as_ptr()) }
    };
    let (init, count_of, get, name_of, memory_of) = (
        find(c"cuInit"),
        find(c"cuDeviceGetCount"),
        find(c"cuDeviceGet"),
        find(c"cuDeviceGetName"),
        find(c"cuDeviceTotalMem_v2"),
    );
    if [init, count_of, get, name_of, memory_of].contains(&std::ptr::null_mut()) {
        return Vec::new();
    }
    // SAFETY: none is null, and these are the types of CUDA's driver API.
    let (init, count_of, get, name_of, memory_of) = unsafe {
        (
            std::mem::transmute::<*mut c_void, extern "C" fn(c_uint) -> c_int>(init),
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_int) -> c_int>(count_of),
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_int, c_int) -> c_int>(get),
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_char, c_int, c_int) -> c_int>(
                name_of,
            ),
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut usize, c_int) -> c_int>(
                memory_of,
            ),
        )
    };
    let mut count = 0;
    if init(0) != 0 || count_of(&raw mut count) != 0 {
        return Vec::new();
    }
    let describe = |number: c_int| {
        let mut found = unknown(DeviceKind::Cuda);
        let (mut device, mut bytes) = (0, 0usize);
        let mut name: [c_char; 256] = [0; 256];
        if get(&raw mut device, number) == 0 {
            if name_of(name.as_mut_ptr(), 255, device) == 0 {
                // SAFETY: the last byte is a nul: the driver writes 255 at most.
                let text = unsafe { CStr::from_ptr(name.as_ptr()) };
                found.name = Some(text.to_string_lossy().into_owned());
            }
            if memory_of(&raw mut bytes, device) == 0 {
                found.memory_bytes = u64::try_from(bytes).ok();
            }
        }
        found
    };
    (0..count).map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_announces_what_it_computes_with() {
        let found = find();
        let line = serde_json::to_string(&found).unwrap();
        assert_eq!(Capabilities::parse(&line).unwrap(), found);
        for engine in ["native", "mistralrs", "trainer"] {
            let on_cpu = |c: &Computes| c.engine == engine && c.device == "cpu";
            assert!(found.engines.iter().any(on_cpu), "{engine}");
        }
        assert!(found.processor.cores > 0 && !found.processor.level.is_empty());
    }
}
