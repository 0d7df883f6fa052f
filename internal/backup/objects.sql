-- One row an object: kind, name, the table it is on, a hash of its definition, owner, grants other than the default ones.
with
members as (
    select classid, objid from pg_catalog.pg_depend where deptype = 'e'
), schemas as (
    select n.oid, n.nspname, n.nspowner, n.nspacl from pg_catalog.pg_namespace n
     where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_%'
       and (n.oid) not in (select objid from members where classid = 'pg_catalog.pg_namespace'::regclass)
), relations as (
    select c.*, s.nspname || '.' || c.relname as name
      from pg_catalog.pg_class c join schemas s on s.oid = c.relnamespace
     where c.relpersistence <> 't' and c.oid not in (select objid from members where classid = 'pg_catalog.pg_class'::regclass)
), objects (kind, name, "on", definition, owner, acl, defaultacl) as (
    select 'schema', nspname::text, '', '', nspowner, nspacl, acldefault('n', nspowner) from schemas
    union all
    select case relkind when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' else 'sequence' end,
           name, '',
           concat_ws('|', relkind, relpersistence, relrowsecurity, relforcerowsecurity, relreplident, array_to_string(reloptions, ','),
               case when relispartition then pg_get_expr(relpartbound, c.oid) end,
               case when relkind = 'p' then pg_get_partkeydef(c.oid) end,
               case when relkind in ('v', 'm') then pg_get_viewdef(c.oid) end,
               (select string_agg(p.oid::regclass::text, ',' order by i.inhseqno) from pg_catalog.pg_inherits i join pg_catalog.pg_class p on p.oid = i.inhparent where i.inhrelid = c.oid),
               (select concat_ws(',', seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle) from pg_catalog.pg_sequence where seqrelid = c.oid),
               (select string_agg(d.refobjid::regclass || '.' || a.attname, ',') from pg_catalog.pg_depend d
                  join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                 where relkind = 'S' and d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i'))),
           relowner, relacl, acldefault(case when relkind = 'S' then 's' else 'r' end::"char", relowner)
      from relations c where relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    union all
    select 'column', c.name || '.' || a.attname, c.name,
           concat_ws('|', row_number() over (partition by c.oid order by a.attnum), format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation, a.attnotnull,
               a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), array_to_string(a.attoptions, ',')),
           null::oid, a.attacl, null::aclitem[]
      from relations c
      join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
     where c.relkind in ('r', 'p', 'f', 'c', 'v', 'm')
    union all
    select 'constraint', c.name || '.' || k.conname, c.name, concat_ws('|', pg_get_constraintdef(k.oid), k.convalidated), null, null, null
      from pg_catalog.pg_constraint k join relations c on c.oid = k.conrelid
     where k.contype <> 'n' and not (k.contype = 't')
    union all
    select 'index', s.nspname || '.' || x.relname, c.name, concat_ws('|', pg_get_indexdef(i.indexrelid), i.indisclustered, i.indisreplident), null, null, null
      from pg_catalog.pg_index i
      join relations c on c.oid = i.indrelid
      join pg_catalog.pg_class x on x.oid = i.indexrelid
      join schemas s on s.oid = x.relnamespace
     where i.indisvalid or c.relkind = 'p' -- pg_dump leaves out what CREATE INDEX CONCURRENTLY has left unfinished
    union all
    select 'trigger', c.name || '.' || t.tgname, c.name, concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled), null, null, null
      from pg_catalog.pg_trigger t join relations c on c.oid = t.tgrelid where not t.tgisinternal
    union all
    select 'rule', c.name || '.' || r.rulename, c.name, concat_ws('|', pg_get_ruledef(r.oid), r.ev_enabled), null, null, null
      from pg_catalog.pg_rewrite r join relations c on c.oid = r.ev_class where r.rulename <> '_RETURN'
    union all
    select 'policy', c.name || '.' || p.polname, c.name,
           concat_ws('|', p.polcmd, p.polpermissive, (select string_agg(rolname, ',' order by rolname) from pg_catalog.pg_roles where oid = any (p.polroles)),
               pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)), null, null, null
      from pg_catalog.pg_policy p join relations c on c.oid = p.polrelid
    union all
    select 'function', s.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', '',
           concat_ws('|', p.prokind, l.lanname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.provolatile, p.proisstrict, p.prosecdef, p.proleakproof,
               p.proparallel, p.procost, p.prorows, array_to_string(p.proconfig, ','), p.prosrc, p.probin, pg_get_function_sqlbody(p.oid),
               (select concat_ws(',', aggtransfn, aggfinalfn, aggcombinefn, aggtranstype::regtype, agginitval) from pg_catalog.pg_aggregate where aggfnoid = p.oid)),
           p.proowner, p.proacl, acldefault('f', p.proowner)
      from pg_catalog.pg_proc p join schemas s on s.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
     where p.oid not in (select objid from members where classid = 'pg_catalog.pg_proc'::regclass)
    union all
    select 'type', s.nspname || '.' || t.typname, '',
           concat_ws('|', t.typtype, t.typnotnull, t.typdefault, case when t.typbasetype <> 0 then format_type(t.typbasetype, t.typtypmod) end,
               (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = t.oid),
               (select string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid), ',' order by k.conname) from pg_catalog.pg_constraint k where k.contypid = t.oid),
               (select rngsubtype::regtype::text from pg_catalog.pg_range where rngtypid = t.oid)),
           t.typowner, t.typacl, acldefault('T', t.typowner)
      from pg_catalog.pg_type t
      join schemas s on s.oid = t.typnamespace
      left join pg_catalog.pg_class c on c.oid = t.typrelid
     where t.typtype in ('e', 'd', 'r', 'b', 'c') and coalesce(c.relkind = 'c', t.typelem = 0 or t.typlen > 0) -- no row types of tables, no arrays
       and t.oid not in (select objid from members where classid = 'pg_catalog.pg_type'::regclass)
    union all
    select i.type, i.identity, '', '', null, null, null
      from (select 'pg_catalog.pg_operator'::regclass::oid as class, oid from pg_catalog.pg_operator
            union all select 'pg_catalog.pg_opclass'::regclass, oid from pg_catalog.pg_opclass
            union all select 'pg_catalog.pg_opfamily'::regclass, oid from pg_catalog.pg_opfamily
            union all select 'pg_catalog.pg_cast'::regclass, oid from pg_catalog.pg_cast
            union all select 'pg_catalog.pg_collation'::regclass, oid from pg_catalog.pg_collation
            union all select 'pg_catalog.pg_conversion'::regclass, oid from pg_catalog.pg_conversion
            union all select 'pg_catalog.pg_language'::regclass, oid from pg_catalog.pg_language
            union all select 'pg_catalog.pg_statistic_ext'::regclass, oid from pg_catalog.pg_statistic_ext
            union all select 'pg_catalog.pg_ts_config'::regclass, oid from pg_catalog.pg_ts_config
            union all select 'pg_catalog.pg_ts_dict'::regclass, oid from pg_catalog.pg_ts_dict
            union all select 'pg_catalog.pg_ts_parser'::regclass, oid from pg_catalog.pg_ts_parser
            union all select 'pg_catalog.pg_ts_template'::regclass, oid from pg_catalog.pg_ts_template
            union all select 'pg_catalog.pg_event_trigger'::regclass, oid from pg_catalog.pg_event_trigger
            union all select 'pg_catalog.pg_publication'::regclass, oid from pg_catalog.pg_publication
            union all select 'pg_catalog.pg_foreign_data_wrapper'::regclass, oid from pg_catalog.pg_foreign_data_wrapper
            union all select 'pg_catalog.pg_foreign_server'::regclass, oid from pg_catalog.pg_foreign_server
            union all select 'pg_catalog.pg_am'::regclass, oid from pg_catalog.pg_am) as others,
           pg_identify_object(others.class, others.oid, 0) as i
     where others.oid >= 16384 and (others.class, others.oid) not in (select classid, objid from members)
    union all
    select 'default grants', concat_ws(' ', 'of', pg_get_userbyid(d.defaclrole), 'on', d.defaclobjtype, 'in', s.nspname), '', '', null, d.defaclacl, null
      from pg_catalog.pg_default_acl d left join schemas s on s.oid = d.defaclnamespace
    union all
    select 'comment', i.type || ' ' || i.identity, '', c.description, null, null, null
      from pg_catalog.pg_description c, pg_identify_object(c.classoid, c.objoid, c.objsubid) as i
     where c.objoid >= 16384 and (c.classoid, c.objoid) not in (select classid, objid from members)
)
select kind::text, name::text, "on"::text,
       case when definition = '' then ''
            else left(encode(sha256(convert_to(regexp_replace(definition, '::("[^"]+"|[a-z0-9_ .]+)(\([0-9, ]+\))?(\[\])*|[()\s]', '', 'g'), 'UTF8')), 'hex'), 16) end,
       coalesce(pg_get_userbyid(owner)::text, ''),
       case when acl is null or array_length(acl, 1) = array_length(defaultacl, 1)
              and not exists (select a::text from unnest(acl) as a except select a::text from unnest(defaultacl) as a) then ''
            else (select coalesce(string_agg(a::text, ', ' order by a::text collate "C"), 'none') from unnest(acl) as a) end
  from objects
 order by kind collate "C", name collate "C", "on" collate "C"
