//! What the tasks of a phase read and write: [`Rows`] of numbers, and
//! [`Columns`], the disjoint parts of one buffer that tasks fill side by side.
//!
//! Both are checked where they are made, so that the loops that use them need no
//! checks of their own.

use std::marker::PhantomData;

/// Numbers from the first of `count` rows to the last of the last one, where a row
/// of `width` numbers begins every `stride` numbers.
fn extent(count: usize, stride: usize, width: usize) -> usize {
    let Some(before) = count.checked_sub(1) else {
        return 0;
    };
    before
        .checked_mul(stride)
        .and_then(|at| at.checked_add(width))
        .unwrap_or_else(|| panic!("{count} rows of {width} numbers, one every {stride}, overflow"))
}

/// Rows of a buffer, to be read.
#[derive(Debug)]
pub struct Rows<'a, T> {
    numbers: &'a [T],
    count: usize,
    stride: usize,
    width: usize,
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// `count` rows of `width` numbers, one every `stride` numbers.
    ///
    /// # Panics
    /// When they are not inside `numbers`.
    pub fn new(numbers: &'a [T], count: usize, stride: usize, width: usize) -> Self {
        let extent = extent(count, stride, width);
        assert!(
            extent <= numbers.len(),
            "{count} rows of {width} numbers, one every {stride}, are not in {} numbers",
            numbers.len()
        );
        Self {
            numbers,
            count,
            stride,
            width,
        }
    }

    /// `count` of them from the row `first` on.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn some(self, first: usize, count: usize) -> Self {
        assert!(
            first <= self.count && count <= self.count - first,
            "{count} rows from row {first} on are not in {} rows",
            self.count
        );
        let skipped = if count == 0 { 0 } else { first * self.stride };
        Self::new(&self.numbers[skipped..], count, self.stride, self.width)
    }

    /// Rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Numbers from one row's first to the next one's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Where the first row begins: [`Rows::count`] rows can be read from there.
    pub fn as_ptr(&self) -> *const T {
        self.numbers.as_ptr()
    }
}

/// Neighbouring columns of the rows of a buffer, to be written: nobody else reaches
/// them while it is there.
#[derive(Debug)]
pub struct Columns<'a, T> {
    /// The first row's first.
    first: *mut T,
    rows: usize,
    stride: usize,
    width: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: it holds exclusive borrows of its rows' parts, as a `&mut [T]` for each
// would, and those may be sent where T may.
unsafe impl<T: Send> Send for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// The first `width` columns of `rows` rows, one every `stride` numbers.
    ///
    /// # Panics
    /// When they are not inside `buffer`, or rows overlap.
    pub fn new(buffer: &'a mut [T], rows: usize, stride: usize, width: usize) -> Self {
        assert!(
            width <= stride,
            "rows of {width} numbers, one every {stride}, overlap"
        );
        assert!(
            extent(rows, stride, width) <= buffer.len(),
            "{rows} rows of {width} numbers, one every {stride}, are not in {} numbers",
            buffer.len()
        );
        Self {
            first: buffer.as_mut_ptr(),
            rows,
            stride,
            width,
            buffer: PhantomData,
        }
    }

    /// Cuts them into panels of `width` columns; the last one has those that are left.
    ///
    /// # Panics
    /// When `width` is 0.
    pub fn panels(self, width: usize) -> impl Iterator<Item = Columns<'a, T>> {
        assert!(width > 0, "panels of no columns");
        // No two panels have a column in common, and `self` is gone.
        (0..self.width).step_by(width).map(move |at| Columns {
            first: self.first.wrapping_add(at),
            rows: self.rows,
            stride: self.stride,
            width: width.min(self.width - at),
            buffer: PhantomData,
        })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers from one row's first to the next one's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The columns of one row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `new` found every row inside the buffer, which is borrowed for 'a; the
        // columns are this value's alone, and it is borrowed while the slice is there.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.width) }
    }

    /// Where the first row begins: [`Columns::width`] numbers of [`Columns::rows`] rows,
    /// one every [`Columns::stride`], can be read and written from there.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::panic_message;
    use super::*;

    #[test]
    fn panels_are_the_whole_and_do_not_overlap() {
        for (rows, stride, width, panel) in [(3, 7, 7, 3), (1, 5, 4, 4), (2, 4, 3, 9), (0, 4, 4, 2)]
        {
            let mut buffer = vec![0; rows * stride];
            let mut panels: Vec<_> = Columns::new(&mut buffer, rows, stride, width)
                .panels(panel)
                .collect();
            assert_eq!(panels.len(), usize::div_ceil(width, panel));
            for panel in &mut panels {
                for row in 0..rows {
                    panel.row(row).iter_mut().for_each(|n| *n += 1);
                }
            }
            for (at, n) in buffer.iter().enumerate() {
                assert_eq!(*n, i32::from(at % stride < width), "{at}");
            }
        }
    }

    #[test]
    fn rows_outside_their_buffer_are_refused() {
        let numbers = [0_u8; 10];
        for (count, stride, width) in [
            (1, 0, 11),
            (2, 6, 5),
            (3, 4, 3),
            (2, usize::MAX, 1),
            (usize::MAX, 2, 1),
            (2, 1, usize::MAX),
            (3, usize::MAX / 2 + 1, 1),
        ] {
            let message = panic_message(|| {
                Rows::new(&numbers, count, stride, width);
            });
            assert!(
                message.contains("numbers, one every"),
                "{count} {stride} {width}: {message}"
            );
            let message = panic_message(|| {
                Columns::new(&mut [0_u8; 10], count, stride, width);
            });
            assert!(message.contains("one every"), "{message}");
        }
        assert_eq!(Rows::new(&numbers, 2, 5, 5).some(1, 1).count(), 1);
        assert_eq!(Rows::new(&numbers, 2, 6, 4).some(2, 0).count(), 0);
        assert_eq!(Rows::new(&numbers, 0, usize::MAX, 9).count(), 0);
        let rows = Rows::new(&numbers, 2, 5, 5);
        for (first, count) in [(1, 2), (3, 0), (usize::MAX, 2), (0, usize::MAX)] {
            let message = panic_message(|| {
                rows.some(first, count);
            });
            assert!(message.ends_with("are not in 2 rows"), "{message}");
        }
        let mut buffer = numbers;
        let message = panic_message(move || {
            Columns::new(&mut buffer, 2, 5, 5).row(2);
        });
        assert_eq!(message, "row 2 of 2");
    }
}
