"""`fedrec results`: the tables and plots of the documents, made from the files that `fedrec reproduce` writes."""
