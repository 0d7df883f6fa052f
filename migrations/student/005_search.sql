-- expand: from before rollouts ran migrations: it has run while nothing else did
-- The functions below are in indexes: whoever changes what one of them returns makes a new function and a new index. They name
-- the schema of what they call, because pg_restore makes indexes with an empty search_path.

create extension if not exists unaccent with schema public;

-- A name without case and accents. It is immutable as long as nobody changes the rules of the dictionary.
create function student_fold(name text) returns text
    language sql immutable parallel safe strict
    return lower(public.unaccent('public.unaccent'::regdictionary, name) collate "und-x-icu");

-- The words of a name, folded. Apostrophes and joiners are no letters: O'Neil is oneil.
create function student_words(name text) returns text[]
    language plpgsql immutable parallel safe strict as
$$
begin
    return array_remove(string_to_array(translate(public.student_fold(name), E'-.\\\'\u200c\u200d', '   '), ' '), '');
end
$$;

-- What a student is found by: the words of the names, the mobile number, the student id and its last part; and each word of four
-- letters or more again for each of its letters with that letter open, as in ~as_a. A typo in it is then a wrong letter (the word
-- typed has the same form), a missing one (the word typed with one more letter open) or one too many (the word typed without it).
-- It is not written in SQL, because a query in a function takes three times as long; the cost keeps the planner from making terms of
-- rows where it could look into the index.
create function student_terms(first_name text, last_name text, guardian_name text, mother_name text, mobile text, student_id text)
    returns tsvector
    language plpgsql immutable parallel safe strict cost 5000 as
$$
declare
    terms text[] = array[mobile, lower(student_id), split_part(student_id, '-', 3)];
    word  text;
begin
    foreach word in array public.student_words(first_name || ' ' || last_name || ' ' || guardian_name || ' ' || mother_name) loop
        continue when word = any (terms);
        terms = terms || word;
        if length(word) > 3 then
            for i in 1 .. length(word) loop
                terms = terms || ('~' || overlay(word placing '_' from i for 1));
            end loop;
        end if;
    end loop;
    return array_to_tsvector(terms);
end
$$;

-- What a free text asks for: every word of it, as the start of a term or, where typos are forgiven, with one typo in a word. The
-- typos of mobile numbers are spelt out digit by digit, which keeps a million of them out of the index. A student id has none:
-- its neighbours are other students.
create function student_search(query text, typos boolean) returns tsquery
    language sql immutable parallel unsafe strict set jit = off -- workers and compilers start slower than a search takes
    return (
        select string_agg(terms, ' & ')::tsquery
        from (
            select '(' || string_agg(term, ' | ') || ')' as terms
            from (
                select word, length(word) as n, typos and word !~ '[0-9]' as named, typos and word ~ '^[0-9]{9,11}$' as numbered
                from (
                    select distinct unnest(case when token ~* '^stu-[0-9-]*$' then array[lower(token)]
                        else student_words(translate(token, '!"#$%&()*+,/:;<=>?@[]^_`{|}~', repeat(' ', 28))) end) as word
                    from regexp_split_to_table(query, '\s+') as token
                ) as split
            ) as words
            cross join lateral (
                select '''' || word || ''':*' as term
                union
                select '''' || typed || ''''
                from (
                    select '~' || overlay(word placing '_' from i for 1) from generate_series(1, n) as i where named and n > 3
                    union all
                    select '~' || left(word, i) || '_' || substr(word, i + 1) from generate_series(0, n) as i where named and n > 2
                    union all
                    select left(word, i - 1) || substr(word, i + 1) from generate_series(1, n) as i where named and n > 3 or numbered
                    union all
                    select left(word, i - 1) || substr(word, i + 1, 1) || substr(word, i, 1) || substr(word, i + 2)
                    from generate_series(1, n - 1) as i where named and n > 3 or numbered
                    union all
                    select overlay(word placing digit::text from i for n - 9) -- a digit more in nine, another in ten
                    from generate_series(1, 10) as i, generate_series(0, 9) as digit where numbered and n < 11
                ) as misspelt (typed)
            ) as alternatives
            group by word
        ) as asked
    );

-- What is written waits in a list, which every search reads and one writer in forty empties: a short one bothers neither.
create index student_search_terms on student
    using gin (student_terms(first_name, last_name, guardian_name, mother_name, mobile, student_id)) with (gin_pending_list_limit = 128)
    where not synthetic;
alter index student_search_terms alter column 1 set statistics 0; -- nothing reads them, and they take seconds

-- Names in order; and counted by prefix and status without a look at the table. The planner reads no column from an expression:
-- hence the name itself.
create index student_first_name_order on student (student_fold(first_name) collate "C", student_id) where not synthetic;
create index student_last_name_order on student (student_fold(last_name) collate "C", student_id) where not synthetic;
create index student_first_name_status on student (lower(first_name collate "und-x-icu") text_pattern_ops, status, first_name) where not synthetic;
create index student_last_name_status on student (lower(last_name collate "und-x-icu") text_pattern_ops, status, last_name) where not synthetic;

-- The planner does not use what it knows of the expressions of partial indexes.
create statistics student_first_name_prefix on (lower(first_name collate "und-x-icu")) from student;
create statistics student_last_name_prefix on (lower(last_name collate "und-x-icu")) from student;
create statistics student_first_name_order on (student_fold(first_name) collate "C") from student;
create statistics student_last_name_order on (student_fold(last_name) collate "C") from student;

-- One key a database, so that every instance reads the cursors that another one gave out. Cursors hold what a page is sorted by,
-- dates of birth too, and are seen by whatever logs addresses.
create table student_cursor_key (
    cursor_key bytea not null check (length(cursor_key) = 32)
);

insert into student_cursor_key select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

---- create above / drop below ----

drop table student_cursor_key;
drop statistics student_last_name_order;
drop statistics student_first_name_order;
drop statistics student_last_name_prefix;
drop statistics student_first_name_prefix;
drop index student_last_name_status;
drop index student_first_name_status;
drop index student_last_name_order;
drop index student_first_name_order;
drop index student_search_terms;
drop function student_search;
drop function student_terms;
drop function student_words;
drop function student_fold;
drop extension unaccent;
