//! What goes out, in which order, when sends are whole, cut short, or have to give their memory back.

use super::*;

/// A log memory whose every byte tells its place.
fn log_memory() -> Vec<u8> {
    (0..65_536_u32).map(|place| (place / 7) as u8).collect()
}

fn slice(offset: u32, length: u32) -> Slice {
    Slice { block: BlockId(9), offset, length }
}

/// The bytes a send puts on the wire.
fn wire(send: &Send, slices: &[Slice], log: &[u8]) -> Vec<u8> {
    let mut out = send.head.bytes()[..send.head_length as usize].to_vec();
    for slice in slices {
        let memory = if slice.block == send.head.id() { send.head.bytes() } else { log };
        out.extend_from_slice(&memory[slice.offset as usize..slice.end() as usize]);
    }
    out
}

fn read_from<'a>(log: &'a [u8]) -> impl Fn(Slice) -> &'a [u8] {
    move |slice| &log[slice.offset as usize..slice.end() as usize]
}

#[test]
fn many_replies_are_one_send_in_their_order() {
    let log = log_memory();
    let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
    outbox.push_bytes(|out| out.extend_from_slice(b"one"));
    outbox.push_bytes(|out| out.extend_from_slice(b"two"));
    outbox.push_slice(slice(100, 50));
    outbox.push_bytes(|out| out.extend_from_slice(b"three"));
    outbox.push_slice(slice(500, 20));
    let mut slices = Vec::new();
    let send = outbox.next_send(&mut slices).expect("something waits");
    let expected = [b"onetwo".as_slice(), &log[100..150], b"three", &log[500..520]].concat();
    assert_eq!(wire(&send, &slices, &log), expected);
    assert_eq!(outbox.flight_bytes(), expected.len());
    outbox.push_bytes(|out| out.extend_from_slice(b"later"));
    assert!(outbox.next_send(&mut Vec::new()).is_none(), "one send at a time");

    let mut released = 0;
    let Send { head, .. } = send;
    outbox.sent(head, expected.len(), |_| released += 1);
    assert_eq!(released, 2);
    slices.clear();
    let send = outbox.next_send(&mut slices).expect("the later one");
    assert_eq!(wire(&send, &slices, &log), b"later");
}

#[test]
fn a_cancelled_send_goes_on_where_it_stopped_wherever_that_is() {
    let log = log_memory();
    let whole = [b"head".as_slice(), &log[100..150], b"tail", &log[7..57], b"queued"].concat();
    for stop in 0..whole.len() - b"queued".len() {
        let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
        outbox.push_bytes(|out| out.extend_from_slice(b"head"));
        outbox.push_slice(slice(100, 50));
        outbox.push_bytes(|out| out.extend_from_slice(b"tail"));
        outbox.push_slice(slice(7, 50));
        let send = outbox.next_send(&mut Vec::new()).expect("something waits");
        outbox.push_bytes(|out| out.extend_from_slice(b"queued"));
        let mut released = 0;
        outbox.sent(send.head, stop, |_| released += 1);
        assert_eq!(
            released,
            u32::from(stop >= 54) + u32::from(stop >= 108),
            "only what is gone is given back"
        );
        let mut slices = Vec::new();
        let rest = outbox.next_send(&mut slices).expect("the rest");
        assert_eq!(wire(&rest, &slices, &log), whole[stop..], "stopped after {stop}");
    }
}

#[test]
fn queued_slices_move_out_of_a_block_that_is_wanted_back() {
    let log = log_memory();
    let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
    let other = Slice { block: BlockId(8), offset: 3, length: 5 };
    outbox.push_slice(slice(10, 30));
    outbox.push_bytes(|out| out.extend_from_slice(b"mid"));
    outbox.push_slice(other);
    outbox.push_slice(slice(1000, 10));
    let mut released = Vec::new();
    outbox
        .move_away(BlockId(9), 43, read_from(&log), |block| released.push(block))
        .expect("within the bound");
    assert_eq!(released, [BlockId(9), BlockId(9)]);
    let mut slices = Vec::new();
    let send = outbox.next_send(&mut slices).expect("something waits");
    let expected = [&log[10..40], b"mid", &log[3..8], &log[1000..1010]].concat();
    assert_eq!(wire(&send, &slices, &log), expected);
}

#[test]
fn who_has_too_much_to_move_is_too_slow() {
    let log = log_memory();
    let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
    outbox.push_slice(slice(0, 5000));
    let refused = outbox.move_away(BlockId(9), 4999, read_from(&log), |_| panic!("nothing moves"));
    assert_eq!(refused, Err(TooSlow { bytes: 5000 }));
    let send = outbox.next_send(&mut Vec::new()).expect("something waits");
    assert!(outbox.is_sending_from(BlockId(9)) && !outbox.is_sending_from(BlockId(8)));
    outbox.sent(send.head, 10, |_| panic!("the rest of the slice is still to be sent"));
    outbox.move_away(BlockId(9), 4990, read_from(&log), |_| ()).expect("the rest is within the bound");
    let send = outbox.next_send(&mut Vec::new()).expect("the rest");
    assert_eq!(send.head.bytes()[..4096], log[10..4106]);
}

#[test]
fn a_reply_larger_than_the_head_block_goes_out_in_several_sends() {
    let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
    let long: Vec<u8> = (0..10_000_u32).map(|place| place as u8).collect();
    outbox.push_bytes(|out| out.extend_from_slice(&long));
    let mut out = Vec::new();
    while !outbox.is_idle() {
        let send = outbox.next_send(&mut Vec::new()).expect("something waits");
        out.extend_from_slice(&wire(&send, &[], &[]));
        let all = outbox.flight_bytes();
        outbox.sent(send.head, all, |_| ());
    }
    assert_eq!(out, long);
    assert_eq!(outbox.queued_bytes(), 0);
}

#[test]
fn no_send_names_more_slices_than_the_ring_takes() {
    let log = log_memory();
    let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
    let mut expected = Vec::new();
    for number in 0..150_u32 {
        outbox.push_bytes(|out| out.extend_from_slice(&number.to_le_bytes()));
        outbox.push_slice(slice(number * 16, 16));
        expected.extend_from_slice(&number.to_le_bytes());
        expected.extend_from_slice(&log[number as usize * 16..][..16]);
    }
    let mut out = Vec::new();
    while !outbox.is_idle() {
        let mut slices = Vec::new();
        let send = outbox.next_send(&mut slices).expect("something waits");
        assert!(slices.len() <= SEND_SLICES);
        out.extend_from_slice(&wire(&send, &slices, &log));
        let all = outbox.flight_bytes();
        outbox.sent(send.head, all, |_| ());
    }
    assert_eq!(out, expected);
}

#[test]
fn a_connection_that_ends_gives_back_what_it_queued_once() {
    let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
    outbox.push_slice(slice(0, 10));
    let send = outbox.next_send(&mut Vec::new()).expect("something waits");
    outbox.push_slice(slice(10, 10));
    outbox.push_slice(slice(20, 10));
    let mut released = 0;
    outbox.discard(|_| released += 1);
    assert_eq!(released, 2, "the one in flight stays pinned");
    outbox.sent(send.head, 3, |_| released += 1);
    outbox.discard(|_| released += 1);
    assert_eq!(released, 3);
}

/// The slices of a block of another core: they are asked for, and their bytes come later, while other sends end.
#[test]
fn what_another_core_copies_aside_goes_out_in_its_place_and_nothing_overtakes_it() {
    let log = log_memory();
    let copied = |slices: &[Slice]| -> Vec<u8> {
        slices.iter().flat_map(|&at| read_from(&log)(at)).copied().collect()
    };
    for stop in 0..60 {
        let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
        outbox.push_bytes(|out| out.extend_from_slice(b"head"));
        outbox.push_slice(slice(100, 50));
        let send = outbox.next_send(&mut Vec::new()).expect("something waits");
        outbox.push_bytes(|out| out.extend_from_slice(b"mid"));
        outbox.push_slice(slice(100, 50));
        outbox.push_slice(slice(700, 9));
        outbox.push_bytes(|out| out.extend_from_slice(b"tail"));
        let first = outbox.ask_for(BlockId(9), 66).expect("within the bound: 59 and 7 of its own");
        assert_eq!(first, [slice(100, 50), slice(700, 9)]);
        assert_eq!((outbox.own_bytes(), outbox.extra_bytes()), (66, 59), "they are accounted for");
        assert_eq!(outbox.ask_for(BlockId(9), 0), Ok(Vec::new()), "each is asked for once");

        let sent = stop.min(54);
        outbox.sent(send.head, sent, |_| assert_eq!(sent, 54));
        let second = outbox.ask_for(BlockId(9), usize::MAX).expect("no bound");
        assert_eq!(second.iter().map(|slice| slice.length as usize).sum::<usize>(), (54 - sent).min(50));
        let whole =
            [b"head".as_slice(), &log[100..150], b"mid", &log[100..150], &log[700..709], b"tail"].concat();
        let mut out = Vec::new();
        let mut send_all = |outbox: &mut Outbox, released: &mut u32| {
            let mut slices = Vec::new();
            while let Some(send) = outbox.next_send(&mut slices) {
                out.extend_from_slice(&wire(&send, &slices, &[]));
                slices.clear();
                let all = outbox.flight_bytes();
                outbox.sent(send.head, all, |_| *released += 1);
            }
            out.len()
        };
        let mut released = 0;
        assert!(send_all(&mut outbox, &mut released) <= 4 + b"mid".len(), "nothing overtakes them");
        outbox.come(&first, &copied(&first));
        send_all(&mut outbox, &mut released);
        outbox.come(&second, &copied(&second));
        send_all(&mut outbox, &mut released);
        assert_eq!(out, whole[sent..], "stopped after {stop}");
        assert_eq!(
            (released, outbox.is_idle(), outbox.extra_bytes()),
            (0, true, 0),
            "released where they lie"
        );
    }
}

#[test]
fn what_comes_for_a_connection_that_was_given_up_is_dropped() {
    let log = log_memory();
    let mut outbox = Outbox::new(Block::heap(BlockId(0), 4096), 4);
    outbox.push_slice(slice(0, 10));
    outbox.push_slice(Slice { block: BlockId(8), ..slice(10, 10) });
    assert_eq!(outbox.ask_for(BlockId(9), 9), Err(TooSlow { bytes: 10 }));
    let asked = outbox.ask_for(BlockId(9), 10).expect("within the bound");
    assert!(outbox.next_send(&mut Vec::new()).is_none(), "it has not come");
    let mut released = Vec::new();
    outbox.discard(|block| released.push(block));
    assert_eq!(released, [BlockId(8)], "who was asked releases the other");
    outbox.push_bytes(|out| out.extend_from_slice(b"too slow"));
    outbox.come(&asked, &log[..10]);
    let send = outbox.next_send(&mut Vec::new()).expect("why it is given up");
    assert_eq!((&send.head.bytes()[..8], send.head_length), (b"too slow".as_slice(), 8));
    assert_eq!(outbox.own_bytes(), 0);
}
