//! JSONL files a record at a time, so that a stage over many queries holds one
//! of them in memory: [`JsonlReader`] and [`JsonlWriter`].

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ArtifactError;

/// Iterates over the records of a file; empty lines are skipped.
#[derive(Debug)]
pub struct JsonlReader<T> {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
    text: String,
    record: PhantomData<T>,
}

impl<T: DeserializeOwned> JsonlReader<T> {
    /// Opens a file.
    ///
    /// # Errors
    /// With the file.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let file = File::open(path).map_err(|source| ArtifactError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            line: 0,
            text: String::new(),
            record: PhantomData,
        })
    }
}

impl<T> JsonlReader<T> {
    /// Skips the next `n` records without parsing them; fewer where there
    /// are fewer.
    ///
    /// # Errors
    /// With the file.
    pub fn pass_over(&mut self, n: usize) -> Result<(), ArtifactError> {
        for _ in 0..n {
            if !self.advance()? {
                break;
            }
        }
        Ok(())
    }

    /// Reads the next line that is not empty into `text`; false at the end.
    fn advance(&mut self) -> Result<bool, ArtifactError> {
        loop {
            self.text.clear();
            let read = self.reader.read_line(&mut self.text);
            if read.map_err(|source| ArtifactError::Io {
                path: self.path.clone(),
                source,
            })? == 0
            {
                return Ok(false);
            }
            self.line += 1;
            if !self.text.trim().is_empty() {
                return Ok(true);
            }
        }
    }
}

impl<T: DeserializeOwned> Iterator for JsonlReader<T> {
    type Item = Result<T, ArtifactError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(false) => None,
            Ok(true) => {
                Some(
                    serde_json::from_str(&self.text).map_err(|source| ArtifactError::Parse {
                        path: self.path.clone(),
                        line: self.line,
                        source,
                    }),
                )
            }
            Err(e) => Some(Err(e)),
        }
    }
}

/// Writes records to a file, a line each.
#[derive(Debug)]
pub struct JsonlWriter {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl JsonlWriter {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    /// With the file.
    pub fn create(path: &Path) -> Result<Self, ArtifactError> {
        let file = File::create(path).map_err(|source| ArtifactError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            writer: BufWriter::new(file),
        })
    }

    /// Writes a record.
    ///
    /// # Errors
    /// With the file.
    pub fn write<T: Serialize>(&mut self, record: &T) -> Result<(), ArtifactError> {
        serde_json::to_writer(&mut self.writer, record)
            .map_err(std::io::Error::from)
            .and_then(|()| self.writer.write_all(b"\n"))
            .map_err(|source| ArtifactError::Io {
                path: self.path.clone(),
                source,
            })
    }

    /// Writes out what is buffered and syncs the file.
    ///
    /// # Errors
    /// With the file.
    pub fn finish(self) -> Result<(), ArtifactError> {
        let path = self.path;
        self.writer
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(|source| ArtifactError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::QueryRecord;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queries.jsonl");
        let records = [QueryRecord::new("a\u{2028}b\r\n"), QueryRecord::new("ß")];
        let mut writer = JsonlWriter::create(&path).unwrap();
        for record in &records {
            writer.write(record).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        let read: Result<Vec<QueryRecord>, _> = JsonlReader::open(&path).unwrap().collect();
        assert_eq!(read.unwrap(), records);
    }

    #[test]
    fn records_that_are_passed_over_are_not_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queries.jsonl");
        std::fs::write(&path, "nonsense\n\n{}\n{\"id\":\"3\",\"text\":\"c\"}\n").unwrap();
        let mut reader = JsonlReader::<QueryRecord>::open(&path).unwrap();
        reader.pass_over(2).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().id, "3");
        reader.pass_over(9).unwrap();
        assert!(reader.next().is_none());
    }

    #[test]
    fn an_error_names_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queries.jsonl");
        std::fs::write(&path, "{\"id\":\"1\",\"text\":\"a\"}\n\n{\"id\":\"2\"}\n").unwrap();
        let mut reader = JsonlReader::<QueryRecord>::open(&path).unwrap();
        assert!(reader.next().unwrap().is_ok());
        let error = reader.next().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("queries.jsonl:3: missing field `text`"),
            "{error}"
        );
        assert!(reader.next().is_none());
    }
}
