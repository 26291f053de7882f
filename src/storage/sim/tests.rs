//! What the simulated disk keeps, loses and refuses.

use super::*;

fn write(file: &mut SimFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(&mut [IoSlice::new(bytes)], offset)
}

#[test]
fn a_crash_keeps_what_was_synced_and_any_sectors_of_the_rest() {
    let mut lengths_seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut file = disk.create("x").unwrap();
        write(&mut file, &[1; 4 * SECTOR_BYTES], 0).unwrap();
        file.sync().unwrap();
        disk.sync_directory().unwrap();
        write(&mut file, &[2; 2 * SECTOR_BYTES], SECTOR_BYTES as u64).unwrap();
        disk.crash();
        let bytes = disk.contents("x").unwrap();
        let sectors: Vec<u8> = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        assert!(
            bytes
                .chunks(SECTOR_BYTES)
                .all(|sector| sector.iter().all(|&byte| byte == sector[0]))
        );
        assert_eq!((sectors[0], sectors[3], sectors.len()), (1, 1, 4), "seed {seed}");
        lengths_seen.insert(sectors[1..3].to_vec());
        assert!(write(&mut file, &[3], 0).is_err(), "a dead process writes nothing");
    }
    assert_eq!(lengths_seen.len(), 4, "every outcome happens: {lengths_seen:?}");
}

#[test]
fn a_name_that_was_not_synced_may_vanish_and_a_synced_one_stays() {
    let mut kept = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        disk.create("a").unwrap();
        disk.sync_directory().unwrap();
        disk.rename("a", "b").unwrap();
        disk.crash();
        let names = disk.list().unwrap();
        assert!(names == ["a"] || names == ["b"], "seed {seed}: {names:?}");
        kept += usize::from(names == ["b"]);
    }
    assert!((1..50).contains(&kept), "kept {kept} of 50");
}

#[test]
fn a_failed_sync_forgets_what_it_did_not_write_and_a_later_one_proves_nothing() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut file = disk.create("x").unwrap();
        disk.sync_directory().unwrap();
        write(&mut file, b"hello", 0).unwrap();
        disk.fail(Op::Sync, 1, Fault::Io);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.contents("x").unwrap(), b"hello", "the cache still shows it");
        disk.kill();
        assert_eq!(disk.contents("x").unwrap(), b"hello", "also to the next process");
        disk.crash();
        lost += usize::from(disk.contents("x").unwrap() != b"hello");
        assert_eq!(disk.fired()[&(Op::Sync, Fault::Io)], 1);
    }
    assert!((1..50).contains(&lost), "lost {lost} of 50");
}

#[test]
fn a_cut_of_the_power_fails_all_that_follows_until_the_crash() {
    let disk = SimDisk::new(1);
    let mut file = disk.create("x").unwrap();
    disk.cut_power_after(2);
    write(&mut file, b"a", 0).unwrap();
    assert!(file.sync().is_err() && disk.is_cut());
    assert!(disk.list().is_err());
    disk.crash();
    assert!(!disk.is_cut() && disk.list().is_ok());
}

#[test]
fn short_and_interrupted_operations_are_finished_and_a_full_disk_is_told() {
    let disk = SimDisk::new(1);
    let mut file = disk.create("x").unwrap();
    disk.fail(Op::Write, 1, Fault::Short);
    disk.fail(Op::Write, 2, Fault::Interrupted);
    write(&mut file, b"hello", 0).unwrap();
    disk.fail(Op::Read, 1, Fault::Short);
    let mut read = [0; 5];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"hello");
    disk.set_capacity(8);
    let full = write(&mut file, b"more than fits", 5).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.contents("x").unwrap(), b"hellomor");
    file.truncate(2).unwrap();
    file.truncate(4).unwrap();
    assert_eq!(disk.contents("x").unwrap(), b"he\0\0");
}

#[test]
fn a_sync_that_fails_behind_a_cut_leaves_the_file_as_it_was_or_cut() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut file = disk.create("x").unwrap();
        write(&mut file, &[7; 2000], 0).unwrap();
        file.sync().unwrap();
        disk.sync_directory().unwrap();
        file.truncate(700).unwrap();
        disk.fail(Op::Sync, 1, Fault::Io);
        assert!(file.sync().is_err());
        disk.crash();
        let found = disk.contents("x").unwrap();
        assert!(found[..700].iter().all(|&byte| byte == 7), "seed {seed}");
        assert!(found[700..].iter().all(|&byte| byte == 0 || byte == 7), "seed {seed}");
    }
}
